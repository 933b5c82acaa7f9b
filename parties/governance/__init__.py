"""Who may compute what with whom: keys, consortium, studies, signed records and the audit log."""
