"""Files of reduced precision, and how well they agree with fp32."""
