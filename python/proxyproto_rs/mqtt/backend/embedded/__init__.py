"""A broker in this process, behind the same front as servers elsewhere."""
