"""The house style as a program: each rule is a pure function over text, shown able to fail."""
