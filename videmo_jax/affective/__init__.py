"""The affective tree: what a face looks like, what it expresses, what a person feels, and what follows from what.

tree (the type) -> text (written and read) and parser (from free captions, with its lexicon) -> edit_distance.
"""
