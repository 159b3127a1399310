//! EROFS, the read-only file system of Linux: a streaming writer and a reader.
