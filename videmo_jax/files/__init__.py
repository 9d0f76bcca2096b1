"""The ground floor: paths, files that appear whole, JSON Lines, and the error that users see."""
