"""Who may do what: tokens, scopes, tenants."""
