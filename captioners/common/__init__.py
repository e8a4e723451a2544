"""What captioners share: finding and preparing pictures, tag rules, stored scores, caption files, events."""
