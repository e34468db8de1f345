"""Opens sessions in the background, so that the video plays while a step compiles."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from dmnet_jax.predict.network import Network, Size
from dmnet_jax.predict.run import LIVE
from dmnet_jax.streaming import Session


class Sessions:
    """One session at a time, for the frames that are played at present.

    Args:
        load: returns the network; called once, in the background.
    """

    def __init__(self, load: Callable[[], Network]) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compile")
        self._load = load
        self._network: Network | None = None
        self._wanted: tuple[Size, float] | None = None
        self._session: Future[Session] | None = None

    def session(self, size: Size, deadline: float) -> Session | None:
        """Returns the session for frames [*size, 3], or None while it is opened.

        With another size or deadline than before, the session before is closed.

        Args:
            size: (H, W) of the frames.
            deadline: seconds that a step may take.

        Raises:
            ValueError: the network cannot be loaded, or not used on such frames.
        """
        if self._wanted != (size, deadline):
            self.close()
            self._wanted = size, deadline
            self._session = self._pool.submit(self._open, size, deadline)
        assert self._session is not None
        return self._session.result() if self._session.done() else None

    def _open(self, size: Size, deadline: float) -> Session:
        network = self._network = self._network or self._load()
        return network.session(size, policy=LIVE, deadline=deadline)

    def close(self) -> None:
        """Closes the session, if there is one."""
        if self._session is not None and self._session.done():
            if self._session.exception() is None:
                self._session.result().close()
        self._session = self._wanted = None

    def shutdown(self) -> None:
        """Closes the session and ends the thread without waiting for it."""
        self.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
