"""Who rates what, in which order, and what a rater may see: numbers only, no database and no Django."""
