"""One form per question to a person, a module for each family of pages."""
