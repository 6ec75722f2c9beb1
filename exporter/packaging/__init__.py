"""The artifact besides its code: manifest, C++ header and report, and the folder in which the file is written."""
