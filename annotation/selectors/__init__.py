"""What pages and API read, a module for each family of readers. Nothing in here writes."""
