"""The artifact besides its code: the manifest, the C++ header, the report, and the folder in which the file is written."""
