"""What makes these tests fast: processes forked from warm ones, exports kept on disk."""
