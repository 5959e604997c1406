"""`otelprogress run`: a program as an operation. Little is imported until that program runs."""
