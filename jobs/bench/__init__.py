"""Side-by-side measurements against peers and targets; `hubspectra bench` runs them."""
