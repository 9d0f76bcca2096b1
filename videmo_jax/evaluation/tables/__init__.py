"""What comes of it: scores, the columns of the paper's tables, the tables."""
