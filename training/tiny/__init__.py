"""A decoder small enough to be pretrained on a laptop: its problems, its tokens, its weights."""
