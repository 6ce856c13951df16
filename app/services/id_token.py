"""Does an id_token hold, and what does it claim? Needs the extra `oidc`."""

from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"]
_LEEWAY_S = 60


def verified(token: str, jwks: Any, issuer: str, client_id: str, nonce: str) -> Mapping[str, Any]:
    """Its claims, signed by a key of the set, for us, now, and for this sign-in (Core 1.0, section 3.1.3.7).

    Raises `ValueError` saying what does not hold.
    """
    registry = jwt.JWTClaimsRegistry(
        leeway=_LEEWAY_S,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": client_id},
        sub={"essential": True},
        exp={"essential": True},
        nonce={"essential": True, "value": nonce},
    )
    try:
        claims = jwt.decode(token, KeySet.import_key_set(jwks), algorithms=_ALGORITHMS).claims
        registry.validate(claims)
    except (JoseError, TypeError) as error:
        raise ValueError(f"its id_token does not hold: {error}") from error
    audience = claims["aud"]
    if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != client_id:
        raise ValueError("its id_token is for somebody else too")
    return claims
