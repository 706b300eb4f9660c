"""Where rows and blocks are kept."""
