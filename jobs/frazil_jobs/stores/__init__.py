"""Object stores: any S3 endpoint, or a folder, behind one interface."""
