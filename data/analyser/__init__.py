"""From audio files to songs: our own analyser, its features named `segue-audio-1`."""
