"""Pages with the published articles, and a form for comments."""

from django.forms import modelform_factory
from django.shortcuts import get_object_or_404, redirect, render

from blog.models import Article, Comment

CommentForm = modelform_factory(Comment, fields=("name", "text"))
PUBLISHED = Article.objects.filter(state=Article.State.PUBLISHED).select_related("author")


def index(request):
    """Show the newest articles."""
    return render(request, "blog/index.html", {"articles": PUBLISHED.all()[:20]})


def article(request, pk):
    """Show an article and its comments; a POST adds a comment."""
    found = get_object_or_404(PUBLISHED, pk=pk)
    form = CommentForm(request.POST or None, instance=Comment(article=found))
    if request.method == "POST" and form.is_valid():
        form.save()
        return redirect(found)
    return render(request, "blog/article.html", {"article": found, "form": form})
