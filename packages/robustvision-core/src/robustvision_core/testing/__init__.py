"""What the tests of every package share; needs pytest, which no package installs by itself."""
