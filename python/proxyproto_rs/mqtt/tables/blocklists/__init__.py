"""Networks that others name: CrowdSec's decisions, and lists in files and on the web."""
