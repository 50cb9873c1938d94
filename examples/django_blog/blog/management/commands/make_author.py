"""`manage.py make_author ada bob`: create authors and API tokens."""

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from rest_framework.authtoken.models import Token


class Command(BaseCommand):
    """Create authors if they don't exist yet, and print their tokens."""

    help = __doc__

    def add_arguments(self, parser):
        parser.add_argument("names", nargs="+", metavar="name")
        parser.add_argument("--operator", action="store_true", help="make them operators")

    def handle(self, *, names, operator, **options):
        for name in names:
            user, _ = get_user_model().objects.get_or_create(
                username=name, defaults={"is_staff": operator, "is_superuser": operator}
            )
            token, _ = Token.objects.get_or_create(user=user)
            self.stdout.write(f"{name} {token.key}")
