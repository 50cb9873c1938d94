"""The admin; changes made here send events too."""

from django.contrib import admin

from blog.models import Article, Category, Comment, Tag


@admin.register(Article)
class ArticleAdmin(admin.ModelAdmin):
    """Articles of all authors."""

    list_display = ("title", "author", "state", "category", "updated_at")
    list_filter = ("state", "category")
    filter_horizontal = ("tags",)


admin.site.register([Category, Comment, Tag])
