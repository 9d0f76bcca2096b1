"""The data room: from Emo-CFG's files to batches of tokens and patches of fixed shape."""
