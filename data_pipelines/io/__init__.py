"""Reading and writing of files, file names and images."""
