"""The block front end: blkif's layouts and rings, the negotiation, and a disk's connection."""
