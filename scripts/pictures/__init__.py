"""The pictures of the front page, one a package, each for light and for dark pages: `make pictures`."""
