"""What happens to a token in its life: issued, admitted, traded, answered with a code, revoked."""
