"""One form per question to an admin: about runs, and about corpora and rewritings."""
