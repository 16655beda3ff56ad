"""Who is logged in, in the top bar, and the button that ends it."""

from __future__ import annotations

from dash import dcc, html
from dash.development.base_component import Component
from flask import g

from backend.settings.dashboard import Role
from dashboard import components as ui
from dashboard.auth.identity import LOOKS_ONLY, logged_in
from dashboard.security import TOKEN_FIELD


def account() -> Component | None:
    """Name and role of who is logged in; nothing where no login is needed."""
    user = logged_in()
    if user is None:
        return None
    title = f"{user.name}, {user.role.value}"
    return html.Form(
        [
            html.Span(
                [
                    html.Span(user.name, className="account-name"),
                    ui.badge(
                        user.role.value,
                        "accent" if user.role is Role.OPERATOR else "warn",
                        title="" if user.role is Role.OPERATOR else LOOKS_ONLY,
                    ),
                ],
                className="account-who",
                title=title,
            ),
            dcc.Input(type="hidden", name=TOKEN_FIELD, value=g.form_token),
            html.Button(
                ui.icon("box-arrow-right"),
                id="logout",
                type="submit",
                className="icon-button",
                title=f"Log out ({title})",
                **{"aria-label": f"Log out ({title})"},
            ),
        ],
        action="/logout",
        method="POST",
        className="account",
    )
