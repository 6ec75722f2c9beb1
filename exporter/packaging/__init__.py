"""What is written beside the code: the manifest, the C++ header, the report; and the folder where a file grows."""
