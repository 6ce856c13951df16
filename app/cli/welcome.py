"""What is a person told once the server is up?"""

import shlex

from app.settings import Settings

_SITUATION = (
    '{"action_type": "read", "actor_role": "member", "actor_id": "ada", "resource": "docs/public/readme.md", '
    '"t3_tensor": {"competence": 0.8, "reliability": 0.8, "integrity": 0.8}}'
)


def welcome(settings: Settings) -> str:
    """Where the server is, whose key opens it, and three commands to paste."""
    key_file = shlex.quote(str(settings.key_file))
    key = "$PHASEGATE_ADMIN_KEY" if settings.admin_key is not None else f"$(cat {key_file})"
    curl = f"curl -sw '\\n' -H \"Authorization: Bearer {key}\""
    model = "loads in the background; the rules answer meanwhile" if settings.model else "off"
    log = "stderr" if settings.log_file is None else str(settings.log_file)
    return f"""
Phasegate serves on {settings.url}
  console    {settings.url}/
  admin key  {settings.key_file}
  log        {log}
  model      {model}

Ask for a decision, see where the rollouts stand, see what a promotion needs:
  {curl} {settings.url}/v1/decisions -d '{_SITUATION}'
  {curl} {settings.url}/v1/rollouts
  {curl} '{settings.url}/v1/rollouts/read/gate?to=advisory'

Ctrl-C stops it.
"""
