"""The programs that draw with what was trained: one file a program (or family of programs), found by content. No torch."""
