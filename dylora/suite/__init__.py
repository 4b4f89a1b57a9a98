"""What all parts of the suite share: options, their checks, records, grids. No torch."""
