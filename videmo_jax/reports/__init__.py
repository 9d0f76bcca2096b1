"""Figures and self-contained pages for every command that shows something."""
