select reopen_lanes($1)
