"""The API for authors, who can access only their own articles."""

from django.shortcuts import get_object_or_404
from rest_framework import routers, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response

from blog.models import Article, Category, Tag


class ArticleSerializer(serializers.ModelSerializer):
    """An article, with the names of its category and tags."""

    category = serializers.SlugRelatedField(
        slug_field="name", queryset=Category.objects.all(), required=False, allow_null=True
    )
    tags = serializers.SlugRelatedField(slug_field="name", many=True, read_only=True)

    class Meta:
        model = Article
        fields = ("id", "title", "body", "state", "category", "tags", "updated_at")
        read_only_fields = ("state",)


class TagSerializer(serializers.Serializer):
    """A tag's name."""

    name = serializers.SlugField()


class ArticleViewSet(viewsets.ModelViewSet):
    """The articles of the authenticated user."""

    serializer_class = ArticleSerializer

    def get_queryset(self):
        return Article.objects.filter(author=self.request.user).prefetch_related("tags")

    def perform_create(self, serializer):
        serializer.save(author=self.request.user)

    @action(detail=True, methods=["post"])
    def publish(self, request, pk):
        """Publish an article, unless its body is empty."""
        mine = Article.objects.select_for_update().filter(author=request.user)
        article = get_object_or_404(mine, pk=pk)
        article.state = Article.State.PUBLISHED
        article.save()
        if not article.body:
            # The request is a transaction: the change and its events are rolled back.
            raise ValidationError({"body": ["There is nothing to publish yet."]})
        return Response(self.get_serializer(article).data)

    @action(detail=True, methods=["post", "delete"])
    def tags(self, request, pk):
        """Add a tag, or remove all tags."""
        article = self.get_object()
        if request.method == "DELETE":
            article.tags.clear()
        else:
            given = TagSerializer(data=request.data)
            given.is_valid(raise_exception=True)
            article.tags.add(Tag.objects.get_or_create(name=given.validated_data["name"])[0])
        return Response(self.get_serializer(self.get_object()).data)

    @action(detail=True, methods=["delete"], url_path="tags/(?P<name>[-a-zA-Z0-9_]+)")
    def untag(self, request, pk, name):
        """Remove one tag."""
        article = self.get_object()
        article.tags.remove(*article.tags.filter(name=name))
        return Response(self.get_serializer(self.get_object()).data)


router = routers.SimpleRouter()
router.register("articles", ArticleViewSet, basename="article")
urlpatterns = router.urls
