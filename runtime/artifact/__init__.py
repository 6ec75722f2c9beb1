"""The artifact as a file: the zip, its digests and signature, its code and pickles, checked before torch reads them."""
