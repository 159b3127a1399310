//! JSON-RPC 2.0 between the process that owns a sandbox and its clients, one object per line.
