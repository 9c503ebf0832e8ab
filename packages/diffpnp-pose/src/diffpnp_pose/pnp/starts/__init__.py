"""Where the search for a minimum starts: poses in closed form, or nearly so."""
