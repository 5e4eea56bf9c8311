"""A recipe for the smallest chain that learns something."""

RECIPE = """
workspace = "$SPACE/work"
bundle = "$SPACE/bundle"

[songs.synth]
songs = 200
classes = 3

[test.synth]
songs = 90
classes = 3
seed = 1

[teacher]
folds = 2
network = { state = 8, bptt_steps = 120 }
loop = { epochs = 1, batch_songs = 50 }

[student]
network = { hidden = 8 }
loop = { epochs = 1, learning_rate = 1 }

[export.calibration]
points = 20
"""
