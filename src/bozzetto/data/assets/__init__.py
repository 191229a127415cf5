"""Objects that others made: readers, one compact format on disk, filters, splits."""
