"""Testing services: as plain objects, or hosted with their entrypoints fired by hand."""
