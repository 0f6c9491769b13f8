"""The bad day: crashes, lost servers, repeats."""
