"""Photos: found in folders, judged by their headers, decoded, drawn on."""
