"""Verifies a JWT of one OpenID Connect issuer. Imports no boto3 and reads no environment."""
