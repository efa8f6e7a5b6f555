"""The block front end: connects PV disks and moves data between them and this domain's frames."""
