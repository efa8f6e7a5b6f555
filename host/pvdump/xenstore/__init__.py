"""The xenstore client of host programs: blocking calls, streams, and a loop over descriptors."""
