import numpy as np

from simgan.conventions.gaze_frame import (
    degrees_between,
    from_mpiigaze,
    from_unityeyes,
    head_of_mpiigaze,
    head_of_unityeyes,
    mirrored,
    to_angles,
    to_vector,
    unit,
)

ANGLES = np.random.default_rng(0).uniform(-1.2, 1.2, (50, 2))


def test_angles_and_vectors_go_there_and_back() -> None:
    vectors = to_vector(ANGLES)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1) and np.allclose(to_angles(3 * vectors), ANGLES)
    assert np.allclose(to_vector(np.zeros(2)), (0, 0, 1))


def test_both_data_sets_frames_go_there_and_back() -> None:
    vectors = to_vector(ANGLES)
    for change in (from_unityeyes, from_mpiigaze, mirrored):
        assert np.allclose(change(change(vectors)), vectors)


def test_who_looks_up_and_to_the_images_right_does_so_in_every_frame() -> None:
    truth = to_vector(np.array([0.2, 0.3]))
    assert (truth > 0).all()
    unity = np.array([truth[0], truth[1], -truth[2]])  # y up, z away from the camera
    mpii = np.array([truth[0], -truth[1], -truth[2]])  # y down, z away from the camera
    assert np.allclose(from_unityeyes(unity), truth) and np.allclose(from_mpiigaze(mpii), truth)
    # MPIIGaze's own formulas: pitch = arcsin(-y), yaw = arctan2(-x, -z), whose yaw points to the image's left
    assert np.allclose(to_angles(from_mpiigaze(mpii)), [np.arcsin(-mpii[1]), -np.arctan2(-mpii[0], -mpii[2])])


def test_a_head_that_faces_the_camera_has_no_angles_and_turns_the_right_way() -> None:
    assert np.allclose(head_of_unityeyes(np.array([0.0, 180.0, 3.0])), 0)
    assert np.allclose(head_of_unityeyes(np.array([350.0, 180.0, 0.0])), [np.radians(10), 0])
    assert np.allclose(head_of_mpiigaze(np.zeros(3)), 0)
    # turned about the camera's x axis (pointing right), z towards -y: the back of the head goes up, the face down
    assert np.allclose(head_of_mpiigaze(np.array([0.1, 0, 0])), [-0.1, 0])
    assert np.allclose(head_of_mpiigaze(np.array([0, 0.1, 0])), [0, -0.1])


def test_angles_between_directions_are_those_of_geometry_also_at_the_ends() -> None:
    x, y = np.eye(3)[:2]
    assert np.allclose(degrees_between(x, y), 90) and np.allclose(degrees_between(x, x + y), 45)
    same = unit(np.array([0.3, 0.5, 0.7]))
    assert degrees_between(same, same) < 1e-3 and degrees_between(same, -same) > 179.99
